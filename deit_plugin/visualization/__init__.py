"""Pictures: where the tokens look, how a training went, what an evaluation confused."""
