"""Reads and writes tf.train.Example messages, TFDS's records, without TensorFlow.

Only those of TFDS's features are read that a pool needs: texts, numbers, labels,
encoded images, and dicts and sequences of them. TFDS's `features.json` says how they
are laid out in a message.
"""

import functools
import json
import os
from typing import Any

from mllm_selector_jax.types import InputError, Picture

_PACKAGE = "mllm_selector_jax.example"


@functools.cache
def _message():
  """Makes the message class, which has the fields of tf.train.Example.

  It has another name, so that it does not clash with TensorFlow's own class.
  """
  from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

  file = descriptor_pb2.FileDescriptorProto(
    name="mllm_selector_jax/example.proto", package=_PACKAGE, syntax="proto3"
  )
  kinds = descriptor_pb2.FieldDescriptorProto
  lists = {
    "Bytes": kinds.TYPE_BYTES,
    "Floats": kinds.TYPE_FLOAT,
    "Ints": kinds.TYPE_INT64,
  }
  for name, kind in lists.items():
    message = file.message_type.add(name=name)
    message.field.add(name="value", number=1, type=kind, label=kinds.LABEL_REPEATED)
  feature = file.message_type.add(name="Feature")
  feature.oneof_decl.add(name="kind")
  for number, name in enumerate(lists, 1):
    feature.field.add(
      name=name.lower(), number=number, type=kinds.TYPE_MESSAGE, oneof_index=0,
      label=kinds.LABEL_OPTIONAL, type_name=f".{_PACKAGE}.{name}",
    )  # fmt: skip
  features = file.message_type.add(name="Features")
  entry = features.nested_type.add(name="FeatureEntry")
  entry.options.map_entry = True
  entry.field.add(
    name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL
  )
  entry.field.add(
    name="value", number=2, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL,
    type_name=f".{_PACKAGE}.Feature",
  )  # fmt: skip
  features.field.add(
    name="feature", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED,
    type_name=f".{_PACKAGE}.Features.FeatureEntry",
  )  # fmt: skip
  example = file.message_type.add(name="Example")
  example.field.add(
    name="features", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL,
    type_name=f".{_PACKAGE}.Features",
  )  # fmt: skip
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(
    pool.FindMessageTypeByName(f"{_PACKAGE}.Example")
  )


def encode(values: dict[str, list[bytes]]) -> bytes:
  """Serialises bytes features by name; the same values give the same bytes."""
  example = _message()()
  for name, feature in values.items():
    example.features.feature[name].bytes.value.extend(feature)
  return example.SerializeToString(deterministic=True)


def decode(data: bytes) -> dict[str, list[Any]]:
  """Parses a message to its features by name, each as a list.

  Raises:
    ValueError: the bytes are not a tf.train.Example.
  """
  from google.protobuf.message import DecodeError

  example = _message()()
  try:
    example.ParseFromString(data)
  except DecodeError as error:
    raise ValueError(f"not a tf.train.Example ({error})") from error
  values = {}
  for name, feature in example.features.feature.items():
    kind = feature.WhichOneof("kind")
    values[name] = [] if kind is None else list(getattr(feature, kind).value)
  return values


def read_features(folder: str) -> dict[str, Any] | None:
  """Reads the tree of features from the `features.json` of a TFDS folder.

  Returns:
    None if the folder has no `features.json`.

  Raises:
    InputError: the file is not a valid `features.json`.
  """
  path = os.path.join(folder, "features.json")
  try:
    with open(path, "rb") as file:
      return json.load(file)["featuresDict"]["features"]
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise InputError(
      f"{path}: not the features of a TFDS data set ({type(error).__name__})."
    ) from error


def build(features: dict[str, Any], values: dict[str, list[Any]]) -> dict[str, Any]:
  """Builds a record from the flat values of a message; images become `Picture`s.

  Args:
    features: the tree of features, as `read_features` returns it.
    values: the values of the message, as `decode` returns them.

  Raises:
    ValueError: the message does not have these features.
  """
  try:
    return _build_dict(features, values, "", None)
  except (KeyError, TypeError, IndexError, AttributeError) as error:
    raise ValueError(f"does not follow features.json ({error})") from error


def _build_dict(features, values, prefix: str, index: int | None) -> dict[str, Any]:
  return {
    name: _build(feature, values, f"{prefix}{name}", index)
    for name, feature in features.items()
  }


def _build(feature: dict[str, Any], values, name: str, index: int | None) -> Any:
  """Returns a feature's value; inside a sequence, that of the element at `index`."""
  if "featuresDict" in feature:
    inner = feature["featuresDict"]["features"]
    return _build_dict(inner, values, f"{name}/", index)
  if "sequence" in feature:
    if index is not None:
      return None  # sequences of sequences hold nothing that a pool needs
    inner = feature["sequence"]["feature"]
    lengths = {len(values[leaf]) for leaf in _leaves(inner, name) if leaf in values}
    if len(lengths) > 1:
      raise ValueError(f"the parts of {name} differ in number")
    return [_build(inner, values, name, n) for n in range(max(lengths, default=0))]
  items = values.get(name, [])
  if index is None and not _is_single(feature):
    return [_convert(feature, item) for item in items]
  index = index or 0
  return _convert(feature, items[index]) if index < len(items) else None


def _leaves(feature: dict[str, Any], name: str) -> list[str]:
  if "featuresDict" not in feature:
    return [] if "sequence" in feature else [name]
  inner = feature["featuresDict"]["features"]
  return [leaf for key in inner for leaf in _leaves(inner[key], f"{name}/{key}")]


def _is_single(feature: dict[str, Any]) -> bool:
  if {"text", "image", "classLabel"} & feature.keys():
    return True
  return not feature.get("tensor", {}).get("shape", {}).get("dimensions")


def _convert(feature: dict[str, Any], value: Any) -> Any:
  if "image" in feature:
    if not isinstance(value, bytes):
      raise ValueError("an image is not bytes")
    return Picture(None, value) if value else None
  if isinstance(value, bytes):
    return value.decode()  # a UnicodeDecodeError is a ValueError
  return value
