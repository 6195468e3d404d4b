// Before every widget's script. Builds an element; text is text, never HTML, whoever wrote it.
const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child || child === 0));
  return node;
};
const signed = (number) => (number > 0 ? `+${number}` : number < 0 ? `\u2212${-number}` : '0');
// From 9.5 % on in whole percents: one digit of it would be written 1e+1.
const percent = (share) => (share >= 0.095 ? `${Math.round(100 * share)} %` : share >= 0.001
  ? `${(100 * share).toPrecision(1)} %` : share > 0 ? 'under 0.1 %' : '0 %');
