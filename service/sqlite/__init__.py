"""
SQLite, behind `service.database`: one thread owns the only connection that writes, commits and checkpoints.

Because no other connection ever does one of the three, SQLITE_BUSY, lost updates and the WAL-reset bug (two
connections, one committing while the other checkpoints; every SQLite before 3.51.3) cannot occur.

To be read in this order: `terms` (limits, errors, what can be seen), `writer` (one batch after the other), and what it
stands on: `connections` (how they are opened), `wal` (checkpoints), `trouble` (what an error says about the storage).
"""
