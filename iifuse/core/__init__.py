"""Pure decisions: no input or output, no trio, no pyfuse3."""
