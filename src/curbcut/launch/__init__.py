"""Runs on several ranks: starts and watches them here, joins them elsewhere, starts them again."""
