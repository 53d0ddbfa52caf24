"""The throwaway Postgres of the demo, for tests: one implementation for both."""

from agent.demo.throwaway_postgres import *  # noqa: F403 - the same names, for tests
