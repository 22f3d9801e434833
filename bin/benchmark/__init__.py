"""The benchmark behind `bin/bench`: Walden and matrix-synapse through the public API, in alternation, in one run.

It imports nothing of the homeserver, so that it measures any server that speaks the client-server API.
"""
