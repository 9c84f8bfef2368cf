"""tercet behind other libraries' interfaces: `tercet.integrations.pykeen` and `tercet.integrations.pyg`.

Each needs its library (pip install 'tercet[pykeen]', 'tercet[pyg]') and is imported by name.
"""
