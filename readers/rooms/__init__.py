"""Rooms as they are and were: the read-only room endpoints of the client-server API.

| | |
|---|---|
| reads | `eventlog.outputs` and `eventlog.events` by timeline, `roomserver.state` over time, `relations`, `redactions` |
| writes | nothing |
| shards by | nothing: every request is answered from the tables alone, on the primary |
| safe to run N of? | yes, any number on any machine: a process keeps only rendered events, each for as long as it is right |
| dead for an hour | rooms cannot be scrolled or opened; nothing is lost and nothing is to be caught up with |
"""
