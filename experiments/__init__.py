"""Why: studies that compare arms, what runs and reads them, and the command."""
