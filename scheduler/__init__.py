"""Time, and nothing else: scheduled jobs, each due time run once, whoever looks at the clock."""

from scheduler.job import AlreadyRunning, Counters, Job, Lost, Ran, Run, SchedulerRefusal, State, Stopping, UnknownJob
from scheduler.runner import Overview, Scheduler
from scheduler.schedule import BadSchedule, Schedule
from scheduler.tick import Tick

__all__ = [
    "AlreadyRunning",
    "BadSchedule",
    "Counters",
    "Job",
    "Lost",
    "Overview",
    "Ran",
    "Run",
    "Schedule",
    "Scheduler",
    "SchedulerRefusal",
    "State",
    "Stopping",
    "Tick",
    "UnknownJob",
]
