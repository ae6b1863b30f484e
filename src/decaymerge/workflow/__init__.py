"""What the rules and ``make`` need in order to run the workflow."""
