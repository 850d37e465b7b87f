"""What is expected of the coming hours: photovoltaics, net load, and how good the forecasts have been."""
