"""The numbers that the paper published, whether they agree with each other, and the view of them beside ours.

Source: arXiv:2603.27981v1 (CC BY-SA 4.0); the tables are in `tables/`
"""
