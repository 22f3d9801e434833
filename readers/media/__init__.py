"""Downloads and thumbnails of what was uploaded.

| | |
|---|---|
| reads | the schema `media`, and files in `media.directory` |
| writes | `media.thumbnails`, and the day on which an upload was used last |
| shards by | nothing |
| safe to run N of? | any number, in any API process; on several machines the directory, if there is one, has to be shared |
| dead for an hour | nobody sees pictures; nothing is lost |
"""
