"""tercet behind other libraries' interfaces: `tercet.integrations.pykeen`, `.pyg` and `.transformers`.

Each needs its library (pip install 'tercet[pykeen]', 'tercet[pyg]', 'tercet[transformers]') and is imported by name.
"""
