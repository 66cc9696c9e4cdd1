"""What all analyses share: commands, settings, outputs, tables, figures, Ctrl-C."""
