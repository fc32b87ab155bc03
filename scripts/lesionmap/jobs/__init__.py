"""How a job starts and ends.

- ``log``: its log, its progress, its error in one line
- ``quarantine``: a slide that a stage cannot use
- ``provenance``: the code and versions that made a result
- ``parallel``: threads, in order and few at a time
"""
