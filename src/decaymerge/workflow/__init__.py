"""What the workflow and the commands agree on: where files lie, what a job gets and asks for."""
