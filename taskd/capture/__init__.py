"""Whose words are these? Take in what a task's code logs, prints, raises and starts, as its entries."""
