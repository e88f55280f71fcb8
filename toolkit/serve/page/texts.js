"use strict";
// What the page says; functions take values.

const TEXTS = {
  en: {
    drop: "Drop a picture here, paste one, or", choose: "Choose a picture", sample: "Take a sample",
    threshold: "Least score", masks: "Masks", labels: "Labels", classes: "Classes", instances: "Instances",
    download: "Download", masksFile: "Masks (PNG)", pictureFile: "Picture", access: "Access",
    token: "Token, if the service asks for one", again: "Ask again", api: "Description of the interface",
    canvas: "Picture with its instances; the arrow keys go through them", other: "中文",
    working: "Looking for instances …",
    found: (shown, all, ms) => `${shown} of ${all} instances; ${ms} ms`,
    notShown: "The browser cannot show this file.", unreachable: "The service cannot be reached.",
    unauthorized: "The service asks for a token.", badToken: "The token has characters that cannot be sent.",
    noSample: "The model has no sample.", status: (code) => `The service answered with status ${code}.`,
    refused: (message) => message,
  },
  zh: {
    drop: "将图片拖到此处、粘贴，或", choose: "选择图片", sample: "使用示例",
    threshold: "最低分数", masks: "掩码", labels: "标签", classes: "类别", instances: "实例",
    download: "下载", masksFile: "掩码（PNG）", pictureFile: "图片", access: "访问",
    token: "令牌（如服务要求）", again: "重新请求", api: "接口说明",
    canvas: "图片及其实例；可用方向键逐个查看", other: "English",
    working: "正在查找实例……",
    found: (shown, all, ms) => `显示 ${shown} 个，共 ${all} 个实例；${ms} 毫秒`,
    notShown: "浏览器无法显示此文件。", unreachable: "无法连接服务。",
    unauthorized: "服务要求令牌。", badToken: "令牌含有无法发送的字符。",
    noSample: "该模型没有示例。", status: (code) => `服务返回状态码 ${code}。`,
    refused: (message) => message,
  },
};
