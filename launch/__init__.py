"""Recipes that start the command on other machines, or in several processes on this one."""
