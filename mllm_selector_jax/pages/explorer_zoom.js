// Enlarges an image in a dialog.
"use strict";

const FACTORS = [1, 1.5, 2, 3, 4, 6, 8];

function makeZoom() {
  const dialog = document.getElementById("zoom");
  const image = document.getElementById("zoomimage");
  let level = 0;
  const fit = () => {
    const frame = image.parentElement;
    const scale = Math.min(
      frame.clientWidth / image.naturalWidth,
      frame.clientHeight / image.naturalHeight,
    );
    image.style.width = `${image.naturalWidth * scale * FACTORS[level]}px`;
    const note = `${image.naturalWidth} × ${image.naturalHeight} pixels of the thumbnail, ${FACTORS[level]}×; + and − change the size`;
    document.getElementById("zoomnote").textContent = note;
  };
  const change = (step) => {
    level = Math.min(FACTORS.length - 1, Math.max(0, level + step));
    fit();
  };
  image.addEventListener("load", fit);
  image.addEventListener("click", () => change(1));
  document.getElementById("zoomin").addEventListener("click", () => change(1));
  document.getElementById("zoomout").addEventListener("click", () => change(-1));
  document.getElementById("zoomclose").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "=") change(1);
    if (event.key === "-") change(-1);
  });
  return {
    isOpen: () => dialog.open,
    open(source, alt) {
      level = 0;
      dialog.showModal();
      image.alt = alt;
      image.src = source;
      if (image.complete && image.naturalWidth) fit();
    },
  };
}
