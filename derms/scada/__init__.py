"""The utility's own system: sources of its points over file and REST, and the plan on its way back."""
