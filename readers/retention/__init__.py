"""Retention and erasure: what leaves the log, and the record of it.

| | |
|---|---|
| reads | both logs, m.room.retention, `roomserver.redactions`, `eventlog.positions` |
| writes | partitions, rows that are removed or scrubbed, `eventlog.edges`, `eventlog.erasures`; by functions |
| shards by | nothing: an advisory lock lets one work at a time |
| safe to run N of? | yes, each step can be broken off and taken up again |
| dead for an hour? | nothing leaves for an hour longer |

Invariant: what a room is built on, its state, and what explains its state never leave, unless the room goes as a whole; readers
meet gaps and nothing else. Each transaction is small, and none makes anybody wait for longer than `lock_timeout`.
"""
