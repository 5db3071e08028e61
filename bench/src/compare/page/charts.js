// Draws each figure from the specification inside it, as wide as its box and in the page's colours.
const axis = {labelColor: "currentColor", titleColor: "currentColor", tickColor: "currentColor", domainColor: "currentColor",
  gridColor: "currentColor", gridOpacity: 0.15, labelFontSize: 12, titleFontSize: 13, titleFontWeight: "normal", labelLimit: 110};
const legend = {labelColor: "currentColor", titleColor: "currentColor", labelFontSize: 12, labelLimit: 260};
for (const figure of document.querySelectorAll("figure.chart")) {
  const spec = JSON.parse(figure.querySelector("script").textContent.replaceAll("#1e1e1e", "currentColor"));
  const box = figure.querySelector("div");
  const columns = Math.max(1, Math.floor((box.clientWidth - 70) / 150));
  const config = {background: null, font: "system-ui, sans-serif", view: {stroke: null}, axis, legend: {...legend, columns}};
  Object.assign(spec, {background: null, config, width: "container", autosize: {type: "fit-x", contains: "padding"}});
  new vega.View(vega.parse(vegaLite.compile(spec).spec), {renderer: "svg", container: box, hover: true}).runAsync();
}
