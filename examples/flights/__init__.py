"""The year 2013 of New York's airports, on a timetable: hours, days, months, the year, and what the weather
did.

`process_context.py` says what runs and when; `workers.py`, `weather.py` and `delays.py` do the work;
`feed.py` plays the data in its real order, some of it late; `landing.py` and `results.py` are the two SQLite
files between them.
"""
