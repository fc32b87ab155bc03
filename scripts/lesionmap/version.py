"""The version of LesionMap."""

VERSION = "0.1.0"
