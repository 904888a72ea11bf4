"""Renderings of an assessment: terminal, HTML, SARIF, JUnit, Markdown, PDF."""
