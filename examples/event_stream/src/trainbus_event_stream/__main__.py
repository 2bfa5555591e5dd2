"""Print events as they come: ``python -m trainbus_event_stream FILE``."""

import sys

from trainbus_event_stream.follow import follow

if len(sys.argv) != 2:
    sys.exit("usage: python -m trainbus_event_stream FILE")
for event in follow(sys.argv[1]):
    kind, step = event.pop("event"), event.pop("step")
    words = " ".join(f"{key}={value}" for key, value in event.items())
    print(f"step {step}: {kind} {words}", flush=True)
