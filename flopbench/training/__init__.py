"""Accuracy: networks are evaluated, trained by a recipe, and raced against one another."""
