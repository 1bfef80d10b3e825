"""Traffic: where packets come from, how they are changed, when and by what way they are sent."""
