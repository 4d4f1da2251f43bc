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

  // One cell of a confusion matrix at a time shows the pictures behind it.
  for (const matrix of document.querySelectorAll(".confusion-matrix")) {
    const buttons = [...matrix.querySelectorAll("button[data-cell]")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        const opens = button.getAttribute("aria-expanded") !== "true";
        for (const other of buttons) {
          const shown = opens && other === button;
          other.setAttribute("aria-expanded", String(shown));
          document.getElementById(other.dataset.cell).hidden = !shown;
        }
        if (opens) document.getElementById(button.dataset.cell).scrollIntoView({ block: "nearest" });
      });
    }
  }

  for (const [name, figure] of Object.entries(figures)) {
    const place = document.getElementById(name);
    Plotly.newPlot(place, figure.data, fit(figure.layout), Object.assign({ displayModeBar: narrow.matches ? false : "hover" }, settings))
      .then(() => place.setAttribute("data-drawn", "yes"));
  }
})();
