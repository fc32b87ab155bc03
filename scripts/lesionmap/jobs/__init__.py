"""How a job starts and ends.

- ``log``: log file, progress, errors in one line
- ``quarantine``: slides that a stage cannot use
- ``provenance``: the code and the versions that made a result
- ``parallel``: results of several threads, in order
"""
