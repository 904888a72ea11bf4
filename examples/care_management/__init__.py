"""Who gets a care-management programme: a model of the RAND Health Insurance Experiment, assessed, changed and assessed again."""
