"""How well outputs do, by the truth or by the dense model; knows neither tasks nor data sets."""
