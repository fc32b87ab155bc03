"""The version of LesionMap."""

VERSION = "0.2.0"
