"""A config that notes which of its keys are read."""

import copy


class RecordedConfig:
  """Wraps a config or a section of it, and adds each key that is read to `seen`."""

  def __init__(self, cfg, seen, prefix=""):
    self._cfg, self._seen, self._prefix = cfg, seen, prefix

  def __getitem__(self, key):
    value = self._cfg[key]
    if hasattr(value, "to_dict"):
      return RecordedConfig(value, self._seen, f"{self._prefix}{key}.")
    self._seen.add(f"{self._prefix}{key}")
    return value

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    return self[name] if name in self._cfg else getattr(self._cfg, name)

  def __contains__(self, key):
    return key in self._cfg

  def __iter__(self):
    return iter(self._cfg)

  def __deepcopy__(self, memo):
    return RecordedConfig(copy.deepcopy(self._cfg, memo), self._seen, self._prefix)

  def keys(self):
    return self._cfg.keys()

  def items(self):
    return [(key, self[key]) for key in self._cfg]

  def to_dict(self):
    for _, value in self.items():
      if isinstance(value, RecordedConfig):
        value.to_dict()
    return self._cfg.to_dict()
