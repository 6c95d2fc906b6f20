"""Settings: schema, loading, composition, units and plugins."""
