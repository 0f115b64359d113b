"""Answers back to the clinic's PACS, by C-STORE. They name the patient, as the study does that they belong to."""
