"""Components that follow the outputs and answer or act."""
