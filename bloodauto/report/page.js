"use strict";
(function () {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  // Named one by one: plotly's own selection has a button that sends the chart to a server.
  const settings = { responsive: true, displaylogo: false, plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  const narrow = window.matchMedia("(max-width: 560px)");

  // On a phone a finger must be able to scroll past a figure, and labels have less room.
  function fit(layout) {
    if (!narrow.matches) return layout;
    const small = Object.assign({}, layout, { dragmode: false, font: Object.assign({}, layout.font, { size: 11 }) });
    small.legend = Object.assign({}, layout.legend, { font: { size: 10 } });
    return small;
  }

  for (const [name, figure] of Object.entries(figures)) {
    const place = document.getElementById(name);
    Plotly.newPlot(place, figure.data, fit(figure.layout), Object.assign({ displayModeBar: narrow.matches ? false : "hover" }, settings))
      .then(() => place.setAttribute("data-drawn", "yes"));
  }
})();
