"""Small pure helpers without knowledge of tasks."""
