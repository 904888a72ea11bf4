"""The words every other room speaks: oracle, domain, target, evidence, statistics, errors, seeds, registry, progress."""
