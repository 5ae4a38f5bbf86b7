"""What the commands are made of: functions that make an artifact where it is stale."""
