"""The training run: plan, engines, handlers, state."""
