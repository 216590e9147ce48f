"""What we owe and how it is paid: a queue in the database, a dispatcher, signed webhooks. Knows nothing of payments."""

from outbox.dispatcher import Dispatcher, Happened, Topic
from outbox.message import Done, Drop, Message, Outcome, Promise, Retry, Trial
from outbox.policy import SHORT_MS, STANDARD_MS, Policy, schedule
from outbox.queue import Queue

__all__ = [
    "SHORT_MS",
    "STANDARD_MS",
    "Dispatcher",
    "Done",
    "Drop",
    "Happened",
    "Message",
    "Outcome",
    "Policy",
    "Promise",
    "Queue",
    "Retry",
    "Topic",
    "Trial",
    "schedule",
]
