"""The record of everything: samples, decisions with their inputs, outcomes and events."""
