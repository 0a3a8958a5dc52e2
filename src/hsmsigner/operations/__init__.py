"""The use cases: what the appliance does, each readable as a paragraph."""
