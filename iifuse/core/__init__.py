"""Pure decisions: no module here does input or output, or knows a clock or an event loop."""
