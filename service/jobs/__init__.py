"""The scheduled jobs: each finds what there is to do, and the outbox does it. No job opens a socket."""
