"""
Turn a model that somebody else trained into a version folder: `healthguard models import`.

`importer` is where it begins. `build` and what it imports need TensorFlow and run in a process of their own;
`litert_build` makes a version from a LiteRT file without it.
"""
